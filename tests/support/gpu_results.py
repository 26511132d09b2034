"""Results of tools/gpu.py's steps, made up."""

STAGES = ("decode", "resize", "transfer", "backbone", "rpn", "roi_head", "selection", "write")
MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "cuda",
    "device_name": "NVIDIA H100",
    "processor": "a processor",
    "cores": 16,
    "load_average": 0.5,
    "versions": {"torch": "2.11", "cuda": "13.0", "detectron2": None},
}
CPU = {**MACHINE, "device": "cpu", "device_name": "a processor"}


def rate(images_per_second, **more):
    seconds = 1 / images_per_second
    spread = {"median": seconds, "least": seconds, "most": seconds, "repeats": 1}
    return {"seconds": spread, "images_per_second": images_per_second, **more}


def stages(**milliseconds):
    """Each takes 1 ms, but for those given."""
    return {name: rate(1000 / milliseconds.get(name, 1.0)) for name in STAGES}


def speed(model="x152", precision="fp32", network=20.0, end_to_end=19.0, **milliseconds):
    return {
        "summary": "fast",
        "model": model,
        "precision": precision,
        "images": {"network": 48, "end_to_end": 200},
        "configuration": {
            "precision": precision,
            "batch_size": 16,
            "stages": stages(**milliseconds),
            "network": rate(network, macs=1e9, macs_per_second=1e10, share_of_peak=0.55),
            "end_to_end": rate(end_to_end),
            "peak_memory_bytes": {"host": 3 << 20, "gpu": 5 << 20},
        },
    }


def original(images_per_second, model="x152"):
    loop = {**rate(images_per_second), "stages": stages(selection=700.0)}
    return {"summary": "slow", "model": model, "original": loop}


def golden(name, **changes):
    figures = {"regions": 100, "matched": 100, "box": 1e-4, "features": 4.4e-6, "same_class": 100}
    return {"golden": name, **figures, "met": True, **changes}


def step(cases, machine=MACHINE, left_out=()):
    return {"machine": machine, "cases": cases, "left_out": list(left_out)}
