#!/usr/bin/env bash
# The dense path learns: a small Hiera with UperNet, from scratch, comes to know the real chips of each segmentation task
# by heart, to a mean IoU above 0.95 over whole chips. They are seen at 384 pixels: logits are of cells of 4 pixels, and at
# 96 even the best logits reach 0.85 of these masks, whose rarest class is 25 pixels of 65,536.
# Usage: tests/full/segmentation_overfits.sh [build folder] [folder of GEO-Bench tasks] [--set KEY=VALUE...]
# Needs jq. The tasks' partitions name more samples than there are, or are missing: here all chips train in one batch, and
# are the test, too. OUT keeps the runs' folders: a run that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
terrane=$(realpath "${1:-build/release}")/terrane
tasks=$(realpath "${2:-../shared/data/geobench}")
shift $(($# < 2 ? $# : 2))
wanted=0.95
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    work=$(realpath "$OUT")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi

failed=0
while read -r task classes; do # classes: 0 where the task says
    mkdir -p "$work/$task"
    ln -sf "$tasks/$task"/*.hdf5 "$tasks/$task"/*stats.json "$tasks/$task/labels.json" "$work/$task/"
    partition=$work/$task/default_partition.json
    (cd "$tasks/$task" && printf '%s\n' *.hdf5) | sed 's/\.hdf5$//' | jq -R . |
        jq -s '{train: ., valid: [], test: .}' >"$partition.new"
    cmp -s "$partition.new" "$partition" || mv "$partition.new" "$partition"
    start=$SECONDS
    "$terrane" run tests/full/segmentation_overfits.lua --set data="$work/$task" --set classes="$classes" "$@" \
        --out "$work/$task/out" -q
    reached=$(jq -r .figures.mean_iou "$work/$task/out/result.json")
    chips=$(jq '.test | length' "$partition")
    echo "$task: mean IoU $reached over $chips chips after $((SECONDS - start)) s"
    jq -en "$reached > $wanted" >/dev/null || failed=1
done <<'TASKS'
cvpr_chesapeake_landcover 0
southAfricaCropType 10
TASKS
((failed)) && echo "not above $wanted"
exit $failed
