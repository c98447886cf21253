#!/usr/bin/env bash
# Runs a built image with a small placeholder checkpoint on a volume, and sends it one job.
# Usage: tests/container/smoke.sh IMAGE      ENGINE=podman uses another program than docker.
set -euo pipefail
image=${1:?usage: smoke.sh IMAGE}
engine=${ENGINE:-docker}
tests=$(cd "$(dirname "$0")" && pwd)
volume=$(mktemp -d)
# What root wrote in the container can be removed only there.
end() {
    "$engine" run --rm --user root --volume "$volume:/volume" "$image" rm -rf /volume/models || true
    rmdir "$volume"
}
trap end EXIT
chmod 755 "$volume"

"$engine" run --rm --user root --volume "$volume:/volume" "$image" python -c '
from pathlib import Path
from comfy_local.placeholder import write_checkpoint
write_checkpoint(Path("/volume/models/checkpoints/placeholder.safetensors"))'
# Other checkpoints in the image may be too large for the CPU and the memory of a build machine.
"$engine" run --rm --env PYTHONPATH=/worker --env SD_MODEL=placeholder.safetensors \
    --volume "$volume:/runpod-volume:ro" --volume "$tests:/tests:ro" "$image" python /tests/inside.py
echo "== $image made a picture"
