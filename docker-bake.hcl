# The variants of the image: `docker buildx bake sdxl` builds one variant, `docker buildx bake` builds all.
# Prefix the command with `CUDA=12` for torch built for CUDA 12.8. See docs/deploy.md.
variable "REPOSITORY" { default = "comfy-worker" }
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "" }
variable "COMFYUI_VERSION" { default = "0.33.0" }
variable "CUDA" { default = "13" }

group "default" { targets = ["variant"] }

target "variant" {
  # What `models` names are sections of models.txt; none is an image for a network volume.
  matrix = {
    item = [
      { name = "base", models = "" },
      { name = "sd15", models = "txt2img" },
      { name = "sdxl", models = "sdxl-refiner" },
      { name = "flux-schnell", models = "flux-schnell" },
      { name = "flux-dev", models = "flux-dev" },
      { name = "z-image", models = "z-image-turbo" },
      { name = "qwen-image", models = "qwen-image" },
    ]
  }
  name      = item.name
  platforms = ["linux/amd64"]
  args = {
    MODELS          = item.models
    COMFYUI_VERSION = COMFYUI_VERSION
    CUDA            = CUDA
    VERSION         = VERSION
    REVISION        = REVISION
  }
  secret = ["type=env,id=HF_TOKEN,env=HF_TOKEN", "type=env,id=CIVITAI_TOKEN,env=CIVITAI_TOKEN"]
  tags = [
    "${REPOSITORY}:${VERSION}-${item.name}${CUDA == "13" ? "" : "-cuda${CUDA}"}",
  ]
}
