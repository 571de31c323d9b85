#!/usr/bin/env bash
# What `pip install` gives a user: the wheel without extras, in a fresh environment and far from
# this checkout, runs every command. $1 is a Python that has the package `build`.
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "$0")/../.."
unset PYTHONPATH PYTHONHOME
began=$SECONDS
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT

"$python" -m build --outdir "$where/dist" . > "$where/build.log" 2>&1 ||
    { cat "$where/build.log"; exit 1; }
"$python" -m venv "$where/venv"
"$where/venv/bin/python" -m pip install --quiet "$where"/dist/*.whl
"$where/venv/bin/python" -m pip check
installed=$((SECONDS - began))

mkdir "$where/elsewhere"
cd "$where/elsewhere"
run() { # nothing of this shell's environment, and the output only of what fails
    echo "wheel-check: $*"
    env -i HOME="$where" PATH="$where/venv/bin:/usr/bin:/bin" "$@" > output 2>&1 ||
        { cat output; exit 1; }
}
run python -c 'import sys, orthocond; assert orthocond.__file__.startswith(sys.prefix), orthocond.__file__'
run orthocond --help
for command in train measure plot table; do run orthocond "$command" --help; done
run orthocond train --task dbn --data leaves --method svd --seeds 0 --out runs/tiny \
    --set epochs=1 --set data.train_images=64 --set data.test_images=32 --set batch_size=32 \
    --set model=small --set probe_every=1 --set recalibration_batches=1
run orthocond measure runs/tiny
run orthocond plot fig3 --runs runs/tiny --out figures --format png
test -s figures/fig3.png
run orthocond table tab2 --runs runs/tiny
grep -q 'here: leaves' output
echo "wheel-check: passed in $((SECONDS - began)) s, $installed s of them to build and install"
