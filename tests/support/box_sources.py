"""Boxes of three images, as the files of other programs and stores hold them."""

import json

import numpy as np
import store_files
import support

from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS
from vmb_d2.structures.input_image import InputImage

# Inclusive, in pixels of an image of 640 x 480, by image.
BOXES = {"a": [[0, 1, 9, 20], [100, 2, 399, 470]], "b": [], "c": [[5, 6, 7, 8]]}
IMAGES = [InputImage(f"in/{name}.jpg", name) for name in BOXES]
WIDTH, HEIGHT = 640, 480


def as_array(values):
    return np.array(values, np.float32).reshape(-1, 4)


def save_objects(path, values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    np.save(path, array)
    return path


def imdb(boxes, size=(WIDTH, HEIGHT)):
    """As M4C's: a header, then two questions of each image, with NumPy's own strings in between."""
    entries = [{"creator": "x", "version": 0.4, "dataset_type": "train", "has_answer": True}]
    for question in range(2):
        for name, values in boxes.items():
            entries.append(
                {
                    "question_id": question,
                    "image_id": np.str_(name),
                    "image_path": f"train/{name}",
                    "feature_path": f"{name}.npy",
                    "image_width": size[0],
                    "image_height": size[1],
                    "ocr_tokens": ["word"] * len(values),
                    "ocr_info": [{"word": "word", "bounding_box": {"rotation": 0.0}}],
                    "ocr_normalized_boxes": np.reshape(values, (-1, 4)) / [*size, *size],
                    "obj_normalized_boxes": np.zeros((3, 4), np.float32),
                }
            )
    return entries


def coco(boxes):
    """As COCO's instances: annotations of all images in any order, ids of its own."""
    images = [
        {"id": 7 + i, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(boxes)
    ]
    flat = [
        (image["id"], row, box)
        for image, values in zip(images, boxes.values(), strict=True)
        for row, box in enumerate(values)
    ]
    annotations = [
        {
            "id": 900 - i,
            "image_id": image_id,
            "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
            "iscrowd": row % 2,
            "category_id": 1,
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        }
        for i, (image_id, row, (x1, y1, x2, y2)) in enumerate(sorted(flat, key=lambda x: x[1]))
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations}


def vilbert(boxes):
    return [
        {
            "file_name": f"{name}.jpg",
            "file_path": f"/far/away/{name}.jpg",
            "bbox": as_array(values),
            "num_box": len(values),
        }
        for name, values in boxes.items()
    ]


def in_store(path, boxes, format_name="mmf"):
    images = {
        name: support.some_regions(i, len(values), bbox=as_array(values))
        for i, (name, values) in enumerate(boxes.items())
    }
    return store_files.write(path, format_name, images)


def write_plain(path, boxes):
    """A file of one of this project's own kinds, by its name."""
    records = [{"image": key, "boxes": values} for key, values in boxes.items()]
    if path.name == "boxes.json":
        path.write_text(json.dumps(boxes))
    elif path.name == "records.json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8-sig")
    elif path.suffix == ".npz":
        np.savez(path, **{key: as_array(values) for key, values in boxes.items()})
    else:
        np.save(path, {key: np.array(values) for key, values in boxes.items()})
    return path


def written(folder, kind, boxes, size=(WIDTH, HEIGHT)):
    if "." in kind:
        return write_plain(folder / kind, boxes)
    if kind == "imdb":
        return save_objects(folder / "imdb.npy", imdb(boxes, size))
    if kind == "coco":
        (folder / "instances.json").write_text(json.dumps(coco(boxes)))
        return folder / "instances.json"
    if kind == "ground_truth":
        return save_objects(folder / "gt.npy", vilbert(boxes))
    place = folder / f"stored_{kind}" / FORMATS[kind].place
    place.parent.mkdir(parents=True, exist_ok=True)
    return in_store(place, boxes, kind)


def stored(path):
    """The boxes of a store, as its own reader gives them."""
    with open_reader(path) as reader:
        return {name: reader.read(name).bbox for name in reader.names()}
