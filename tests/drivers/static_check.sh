#!/usr/bin/env bash
# Compiles every kernel for the GPUs of prepare.sh's compile-only drivers, writes the table docs/gpu-kernels.md, and fails
# when a kernel that would run there by default spills registers to memory or does not compile. Nothing runs on a GPU.
# Usage: tests/drivers/static_check.sh DIR [BUILD [NAME...]]
#   DIR: the folder of prepare.sh; BUILD: the build folder, build/release unless given
#   NAME: GPUs to look at, such as rdna3; the table is then printed, and not written
set -euo pipefail

[[ $# -ge 1 ]] || { sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2 && exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
dir=$(cd "$1" 2>/dev/null && pwd) || {
    echo "static_check.sh: no folder $1: tests/drivers/prepare.sh makes it" >&2
    exit 2
}
terrane=${2:-$source/build/release}/terrane
shift $(($# < 2 ? $# : 2))
all=(rdna2 rdna3 rdna4 turing ampere dg2 adreno660 adreno740 m1)
names=("${@:-${all[@]}}")
output=$source/docs/gpu-kernels.md
[[ $# -eq 0 ]] || output=/dev/stdout
[[ -x $terrane ]] || { echo "static_check.sh: no $terrane: build it first" >&2 && exit 2; }

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
# Compiled SPIR-V is kept from run to run; what was measured here or there has no say.
export XDG_CACHE_HOME=$dir/cache TERRANE_DISABLE=${TERRANE_DISABLE:+$TERRANE_DISABLE,}tuning
mkdir -p "$XDG_CACHE_HOME"
reports=()
for name in "${names[@]}"; do
    if [[ ! -x $dir/bin/run-$name ]]; then
        echo "static_check.sh: $name: not prepared, left out" >&2
        [[ $# -eq 0 ]] || exit 2
        continue
    fi
    echo "static_check.sh: $name" >&2
    "$dir/bin/run-$name" "$terrane" shaders --statistics --training --json --quiet >"$results/$name.json" \
        2>"$results/$name.log" || { grep -a 'terrane: error' "$results/$name.log" >&2 && exit 3; }
    reports+=("$results/$name.json")
done
[[ ${#reports[@]} -gt 0 ]] || { echo "static_check.sh: no GPU driver in $dir: tests/drivers/prepare.sh makes them" >&2 && exit 2; }
python3 "$here/kernel_table.py" "$output" "${reports[@]}"
