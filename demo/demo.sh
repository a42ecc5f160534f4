#!/usr/bin/env bash
# A sample hub on this machine, a pull that is interrupted, the pull that goes on. Needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
hub=
cleanup() { [ -n "$hub" ] && kill "$hub" 2>/dev/null; rm -rf "$work"; }
trap cleanup EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say '# a hub with one model: 40 small files and two of 160 MiB; each connection is capped at 5 MiB/s'
bin/demohub --listen 127.0.0.1:0 --model demo/tiny-llama --files 40x4KiB-256KiB,2x160MiB --rate-mbps 5 --latency 20ms >"$work/ready" &
hub=$!
until grep -q '^ready ' "$work/ready"; do read -rt 0.1 <> <(:) || :; done
endpoint=$(sed -n 's/^ready //p' "$work/ready")
export HF_ENDPOINT=$endpoint HF_HUB_CACHE=$work/hub HF_HOME=$work NO_COLOR=${NO_COLOR-}

say '$ ema pull demo/tiny-llama     # and Ctrl-C after five seconds'
timeout --foreground --preserve-status -s INT 5 bin/ema pull demo/tiny-llama || echo "(exit $?)"

say '$ ema pull demo/tiny-llama     # goes on where it was'
path=$(bin/ema pull demo/tiny-llama)
echo "$path" | sed "s|$work|…|"

say '$ ema ls'
bin/ema ls

say '$ ema verify'
bin/ema verify
