"""Small data sets in the layouts that are read, of plain colours, with labels that a test knows."""

import json
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (24, 24), kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def colour(number: int) -> tuple[int, int, int]:
    """Another colour for each number."""
    return (number * 37 % 256, number * 11 % 256, number % 256)


def put(path: Path, data: bytes | str) -> Path:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def put_images(folder: Path, names: list[str]) -> None:
    """Images at these paths, each in a colour of its own."""
    for name in names:
        number = sum(ord(letter) * place for place, letter in enumerate(f"{folder.name}/{name}", 1))
        put(folder / name, encoded(colour(number), kind="JPEG" if name.endswith(".jpg") else "PNG"))


def put_table(path: Path, count: int, metadata: dict | None = None, start: int = 0, **columns: list) -> None:
    """A parquet file of images in colours of their own."""
    images = [{"bytes": encoded(colour(start + i)), "path": None} for i in range(count)]
    table = pa.table({"image": images, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)


def face_points(count: int, left: float = 40, top: float = 30, side: float = 20) -> np.ndarray:
    """Points (count, 2) in a square, its corners among them."""
    inside = np.linspace(0, 1, count - 4)
    square = [[0, 0], [1, 0], [0, 1], [1, 1], *np.stack([inside, inside[::-1]], 1).tolist()]
    return np.array(square) * side + (left, top)


def make_wflw(folder: Path) -> None:
    """Two photos with three faces in train, one in test."""
    photo = Image.new("RGB", (100, 80), "black")
    photo.paste((250, 0, 0), (40, 30, 60, 50))
    buffer = BytesIO()
    photo.save(buffer, "PNG")
    for name in ("0--Parade/a b.jpg", "0--Parade/c.jpg", "1--Rally/d.jpg"):
        put(folder / "WFLW_images" / name, buffer.getvalue())

    def line(name: str, **where: float) -> str:
        numbers = [*face_points(98, **where).ravel(), 40, 30, 60, 50, 0, 0, 0, 0, 0, 0]
        return " ".join(f"{number:g}" for number in numbers) + f" {name}"

    lists = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    train = [line("0--Parade/a b.jpg"), line("0--Parade/a b.jpg", left=2, top=3), line("0--Parade/c.jpg")]
    put(lists / "list_98pt_rect_attr_train.txt", "\n".join(train) + "\n")
    put(lists / "list_98pt_rect_attr_test.txt", line("1--Rally/d.jpg") + "\n")


def pts(points: np.ndarray) -> str:
    """A .pts file, which counts pixels from 1."""
    lines = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n"


def make_300w(folder: Path) -> None:
    """Six annotated faces of AFW and LFPW, two of them of one photo; one of Helen's test set, one of IBUG."""
    faces = ["afw/111_1", "afw/111_2", "afw/222_1", "lfpw/trainset/image_0001", "lfpw/trainset/image_0002"]
    for name in [*faces, "helen/testset/300_1", "ibug/image_003_1"]:
        put(folder / f"{name}.jpg", encoded(size=(100, 80), kind="JPEG"))
        put(folder / f"{name}.pts", pts(face_points(68)))


def make_utkface(folder: Path) -> None:
    """Twenty faces of ages 1–20, and one whose name lacks a part."""
    names = [f"{age}_{age % 2}_{age % 5}_2017010311{age:04}.jpg.chip.jpg" for age in range(1, 21)]
    put_images(folder, [*names, "39_1_20170116174525125.jpg.chip.jpg"])


def make_expw(folder: Path) -> None:
    """Two faces of one photo and one of each of 21 more, all seven expressions."""
    lines = ["pair.jpg 0 10 20 40 30 98.5 3", "pair.jpg 1 40 60 80 60 71.0 6"]
    lines += [f"one{number}.jpg 0 10 20 40 30 90.0 {number % 7}" for number in range(21)]
    put(folder / "label" / "label.lst", "\n".join(lines) + "\n")
    for name in {line.split()[0] for line in lines}:
        put(folder / "image" / "origin" / name, encoded(size=(100, 80), kind="JPEG"))


def make_fer2013(folder: Path, votes: bool = False) -> None:
    """Five faces: three train, one val, one test; with the votes of FER+ if wanted."""
    rows = [(0, "Training", 10), (3, "Training", 20), (6, "Training", 30), (4, "PublicTest", 40), (5, "PrivateTest", 50)]
    lines = [f"{emotion},{' '.join([str(grey)] * 48 * 48)},{usage}" for emotion, usage, grey in rows]
    put(folder / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    if votes:
        head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
        # Sad with a single vote struck; contempt; a tie; neutral; surprise.
        counts = [
            "0,1,0,5,4,0,0,0,0,0",
            "0,0,0,0,0,0,0,9,1,0",
            "5,5,0,0,0,0,0,0,0,0",
            "10,0,0,0,0,0,0,0,0,0",
            "0,0,9,0,0,0,1,0,0,0",
        ]
        lines = [f"{usage},fer{row}.png,{count}" for row, ((_, usage, _), count) in enumerate(zip(rows, counts, strict=True))]
        put(folder / "fer2013new.csv", "\n".join([head, *lines]) + "\n")


def make_firerisk(folder: Path) -> None:
    """Two images of each class in train, one in val."""
    for name in ("High", "Low", "Moderate", "Non-burnable", "Very_High", "Very_Low", "Water"):
        put_images(folder / "train" / name, ["1_1_0_0.png", "2_1_0_0.png"])
        put_images(folder / "val" / name, ["3_1_0_0.png"])


def make_eurosat(folder: Path) -> None:
    """Ten images of each of six classes."""
    for name in ("AnnualCrop", "Forest", "HerbaceousVegetation", "PermanentCrop", "River", "SeaLake"):
        put_images(folder / name, [f"{name}_{number}.jpg" for number in range(1, 11)])


def make_galaxy10(folder: Path) -> None:
    """Thirty pictures of 8 × 8 pixels, the red of each its row, in ten shapes by turns."""
    pixels = np.zeros((30, 8, 8, 3), np.uint8)
    pixels[..., 0] = np.arange(30)[:, None, None]
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "Galaxy10_DECals.h5", "w") as file:
        file["images"], file["ans"] = pixels, np.arange(30) % 10


def make_parquet(folder: Path) -> None:
    """Classes by name in train, val and test."""
    for start, (split, count) in enumerate((("train", 6), ("val", 2), ("test", 2))):
        put_table(folder / f"{split}.parquet", count, start=start * 10, label=[("rose", "tulip")[i % 2] for i in range(count)])


def make_saved(folder: Path) -> None:
    """Classes by name in train and test, as `save_to_disk` of the datasets library writes them."""
    names = ["tulip", "rose"]
    for start, (split, count) in enumerate((("train", 20), ("test", 2))):
        place = folder / split
        cells = [{"bytes": encoded(colour(start * 100 + i)), "path": None} for i in range(count)]
        table = pa.table({"img": cells, "label": [i % 2 for i in range(count)]})
        place.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(place / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
        put(place / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        put(place / "dataset_info.json", json.dumps({"features": features}))
    put(folder / "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))


def make_imagefolder(folder: Path) -> None:
    """Classes by folder in train and valid."""
    for side, count in (("train", 3), ("valid", 2)):
        for name in ("rose", "tulip"):
            put_images(folder / side / name, [f"{side}{name}{number}.png" for number in range(count)])


LAYOUTS = {
    "wflw": make_wflw,
    "300w": make_300w,
    "expw": make_expw,
    "fer2013": make_fer2013,
    "galaxy10": make_galaxy10,
    "firerisk": make_firerisk,
    "eurosat": make_eurosat,
    "utkface": make_utkface,
    "saved": make_saved,
    "parquet": make_parquet,
    "imagefolder": make_imagefolder,
}
