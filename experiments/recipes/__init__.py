"""Published recipes, one file each: model, objective, optimizer, schedule, batch and length as the paper has them, and
where it says so. The corpus is yours (`--config.data.source`), and so is the layout (`--config.mesh`):

    python -m lm.train --config=experiments/recipes/llama.py:3-8b --config.data.source=text/ --config.mesh.fsdp=16

Each has a variant `:tiny`: the same recipe at a size that trains in seconds on a CPU, on the Python standard library's
source. What a paper leaves open, or what differs here, its file says.
"""
