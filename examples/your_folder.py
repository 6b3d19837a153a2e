"""Train on a folder of images and one of masks, score the test part, and write masks.

python examples/your_folder.py IMAGES MASKS [EPOCHS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

import medt


def main(images: str, masks: str, epochs: int = 60) -> None:
    data = medt.open_folder(images, masks, image_size=128)
    print(data)
    run = medt.train("medt_plus", data, epochs=epochs)
    scores = medt.evaluate(run, data, split="test")
    print(f"Dice {scores.dice:.3f}, IoU {scores.iou:.3f} of {len(scores.rows)} test images")
    predictor = medt.load(run)
    output = Path("predicted")
    output.mkdir(exist_ok=True)
    for case in data.index.split("test"):
        cv2.imwrite(str(output / f"{case.name}.png"), 255 * predictor.predict(case.image))
    print(f"masks are in {output}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
