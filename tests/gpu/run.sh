#!/usr/bin/env bash
# Builds the package on a machine with an NVIDIA GPU, then runs what only means something there:
#   tests/gpu/run.sh [OUTPUT-FOLDER]
# Uses the python3 on the PATH and the frameworks it has. Python packages in a folder .whl are installed first; those
# in .whl/ipython8 take the place of a newer IPython where that matters.
set -uo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
out=${1:-build/gpu}
mkdir -p "$out"
site=$(mktemp -d)
export PYTHONPATH=$site PYTHONUNBUFFERED=1
if compgen -G ".whl/*.whl" >/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" .whl/*.whl
fi
python3 -m pip install -q --no-build-isolation --no-deps --no-index --upgrade --target "$site" \
  -C cmake.define.GPUMEM_SIMULATOR=OFF . || exit 1  # there is a real GPU here
tests=$(mktemp -d)
cp -r tests benchmarks notebooks pyproject.toml "$tests"
cd "$tests"
status=0
timeout 420 python3 -m pytest tests/gpu tests/driver tests/session -q -p no:cacheprovider -o addopts="" --timeout=150 2>&1 | tee "$out/tests.log" || status=1
if compgen -G "$here/.whl/ipython8/*.whl" >/dev/null; then
  site8=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$site8" "$here"/.whl/ipython8/*.whl
  PYTHONPATH=$site8:$site timeout 200 python3 -m pytest tests/gpu/test_out_of_memory_gpu.py -q -p no:cacheprovider -o addopts="" --timeout=150 2>&1 | tee "$out/ipython8.log" || status=1
fi
timeout 150 python3 -m benchmarks.overhead 2>&1 | tee "$out/overhead.txt" || status=1
timeout 120 python3 -m benchmarks.accuracy --rows 2>&1 | tee "$out/accuracy.txt" || status=1
timeout 60 python3 -m benchmarks.scale --events 2000000 2>&1 | tee "$out/scale.txt" || status=1
JUPYTER_PATH=$site/share/jupyter timeout 150 python3 -m benchmarks.live 2>&1 | tee "$out/live.txt" || status=1
for form in html notebook; do
  JUPYTER_PATH=$site/share/jupyter timeout 120 python3 -m nbconvert --log-level ERROR --execute --to "$form" \
    --output-dir "$out" notebooks/quickstart.ipynb || status=1
done
exit $status
