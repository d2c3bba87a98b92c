#!/usr/bin/env bash
# Seconds and device memory of a step of training against a forward pass, with values kept for the gradients and with
# blocks computed again (medians of terrane bench), as a table.
# Usage: tests/full/training_times.sh [build folder] [batch] [encoder...]. Without more: hiera-tiny, batch 8.
# RUNS (5) timed runs each.
set -euo pipefail
cd "$(dirname "$0")/../.."
terrane=${1:-build/release}/terrane
batch=${2:-8}
shift $(($# < 2 ? $# : 2))
encoders=("$@")
((${#encoders[@]})) || encoders=(hiera-tiny)

"$terrane" devices | head -3
printf '\n%-24s %6s %-16s %10s %10s %7s %12s %12s\n' encoder batch blocks 'forward, s' 'step, s' ratio \
    'forward, MiB' 'step, MiB'
for encoder in "${encoders[@]}"; do
    for how in kept 'computed again'; do
        options=(--training)
        [ "$how" = kept ] || options+=(--recompute)
        "$terrane" bench --model "$encoder" --batch "$batch" --runs "${RUNS:-5}" "${options[@]}" --json -q |
            jq -r --arg how "$how" '[.model, .batch, $how, .forward_seconds_median, .step_seconds_median, .ratio,
                .forward_device_bytes / 1048576, .device_bytes / 1048576] | @tsv' |
            while IFS=$'\t' read -r model images blocks forward step ratio forward_mib step_mib; do
                printf '%-24s %6d %-16s %10.3f %10.3f %7.2f %12.0f %12.0f\n' "$model" "$images" "$blocks" \
                    "$forward" "$step" "$ratio" "$forward_mib" "$step_mib"
            done
    done
done
