"""Programs: `python -m experiments.NAME --config=experiments/configs/CONFIG.py[:quick] --workdir=DIR`."""
