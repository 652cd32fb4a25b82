"""Make the documents' pictures from the running app: `make screenshot`."""

from pathlib import Path

from browser import opened, served, upload
from playwright.sync_api import Page

ASSETS = Path(__file__).parent.parent.parent / "assets"
TABS = ("Grid", "With photos", "New task", "Own adapter", "Take away")


def picture(page: Page, path: Path) -> None:
    """Of what the window shows, once it has come to rest."""
    page.wait_for_timeout(1500)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))


if __name__ == "__main__":
    with served() as url, opened(url) as page:
        upload(page, ASSETS / "examples" / "astronaut.jpg")
        picture(page, ASSETS / "screenshot.png")
        page.get_by_role("tab", name="Interference").click()
        page.wait_for_selector("#pairs svg")
        picture(page, ASSETS / "interference.png")
        for tab in TABS:
            page.get_by_role("tab", name=tab, exact=True).click()
            if tab == "Grid":
                page.click("#grid-draw")
                page.wait_for_selector("[data-grid]")
            picture(page, ASSETS / "screens" / f"{tab.lower().replace(' ', '-')}.png")
