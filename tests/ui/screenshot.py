"""Make the README's pictures from the running app: `make screenshot`."""

from pathlib import Path

from browser import opened, served, upload

ASSETS = Path(__file__).parent.parent.parent / "assets"

if __name__ == "__main__":
    with served() as url, opened(url) as page:
        upload(page, ASSETS / "examples" / "astronaut.jpg")
        page.wait_for_timeout(1500)
        page.screenshot(path=str(ASSETS / "screenshot.png"))
        page.get_by_role("tab", name="Interference").click()
        page.wait_for_selector("#pairs svg")
        page.wait_for_timeout(1500)
        page.screenshot(path=str(ASSETS / "interference.png"))
