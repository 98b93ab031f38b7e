"""A job and five places for it, to copy. Names of projects, buckets and clusters are yours to fill in."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.job = {
        "name": "llama-8b",
        "config": "experiments/recipes/llama.py:3-8b",
        "workdir": "/runs/llama-8b",
        "knobs": ("--config.mesh.fsdp=64", "--config.data.batch_size=256"),
    }
    config.places = {
        "tpu": {
            "type": "QueuedResource",
            "project": "my-project",
            "zone": "us-east5-a",
            "topology": "v5p:4x4x4",
            "kind": "spot",
            "bucket": "my-bucket",
            "mount": "/runs",
        },
        "gke": {"type": "JobSet", "image": "my-registry/pure-lm", "topology": "v5p:4x4x4", "bucket": "my-bucket"},
        "gke-gpu": {
            "type": "JobSet",
            "image": "my-registry/pure-lm",
            "bucket": "my-bucket",
            "gpus": 8,
            "gpu": "nvidia-h100-80gb",
            "nodes": 8,
        },
        "xpk": {
            "type": "Xpk",
            "project": "my-project",
            "zone": "us-east5-a",
            "cluster": "my-cluster",
            "topology": "v5p:4x4x4",
            "image": "my-registry/pure-lm",
            "slices": 2,
        },
        "slurm": {"type": "Slurm", "folder": "/shared/pure-lm", "nodes": 8, "tasks": 8, "gpus": 8, "cpus": 12},
        "hosts": {"type": "Hosts", "hosts": ("gpu-0", "gpu-1")},
    }
    return config
