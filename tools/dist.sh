#!/bin/sh
# Builds sdist and wheel into dist/ and tries both: what an index asks of them, then the client in a fresh environment,
# with what pip fetches for it, on the oldest and the newest Python that is here.
#
#   tools/dist.sh VENV [PYTHON...]          VENV has what tests need; PYTHON names others than those two
set -eu

cd "$(dirname "$0")/.."
own=$1/bin/python
shift
say() { printf '%s\n' "oelm-jobs: $*" >&2; }

# pyenv's shims may exist and not run.
pythons() {
    for minor in 10 11 12 13 14; do
        for candidate in "python3.$minor" "$HOME/.pyenv/versions/3.$minor."*/bin/python; do
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
            echo "$candidate"
            break
        done
    done
}
if [ $# -eq 0 ]; then
    found=$(pythons)
    oldest=$(echo "$found" | head -n 1)
    newest=$(echo "$found" | tail -n 1)
    set -- "$oldest"
    [ "$oldest" = "$newest" ] || set -- "$oldest" "$newest"
fi

rm -rf build dist
"$own" -m build --outdir dist >/dev/null # the wheel from the sdist
"$own" -m twine check --strict dist/*

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pip() { "$scratch/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
for python; do
    version=$("$python" --version)
    "$python" -m venv --clear "$scratch/venv"
    for package in dist/*.whl dist/*.tar.gz; do
        say "trying $package on $version"
        pip install "$package"
        pip install --force-reinstall --no-deps "$package" # the second one, in place of the first
        pip check
        PACKAGED_CLIENT="$scratch/venv" "$own" -m pytest -q tests/packaging/test_distributions.py -k client </dev/null
    done
done
say "sound: $(echo dist/*)"
