#!/bin/sh
# Builds for this machine's NVIDIA GPU, runs the parity suite and measures against PyTorch.
# Needs cargo, the driver and a Python with PyTorch for CUDA: PYTHON=/path/to/python names it.
set -eu
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" benches/gpu/run.py "$@"
