#!/bin/sh
# All that is to be measured on one GPU, within ten minutes: one table, and OUT/gpu.json. See benchmarks/gpu.py.
#
#     PYTHON=python3 OUT=gpu benchmarks/gpu.sh [--seconds 560] [--peak TFLOPS] [--dry]
#
# PYTHON has what csvi depends on, and pytest; csvi itself is this checkout's.
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py --out "${OUT:-gpu}" "$@"
