"""The weights of scorers and set distances: addresses, sizes, licences, published checksums.

Sizes and checksums are the hub's (of large files, it publishes the SHA-256), OpenAI's (part of the
address), PyTorch's (eight digits in the name), or were taken from the files themselves (LAION's heads).
"""

from __future__ import annotations

from collections.abc import Iterator

from sar_eval.tensors.remote_file import HubFolder, RemoteFile

Weights = tuple[RemoteFile, ...] | HubFolder

_HUB = "https://huggingface.co"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_RAW = "https://raw.githubusercontent.com"

_CLIP_L14 = "openai/clip-vit-large-patch14"
_CLIP_L14_336 = "openai/clip-vit-large-patch14-336"
_CLIP_H14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_PICKSCORE = "yuvalkirstain/PickScore_v1"
_IMAGEREWARD = "THUDM/ImageReward"
_QWEN = "Qwen/Qwen2-VL-7B-Instruct"
_DINO = "facebook/dinov2-large"

_CLIP_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
# SHA-256 of the small files of openai/clip-vit-large-patch14.
_CLIP_L14_SMALL = {
    "config.json": "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a",
    "merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    "preprocessor_config.json": "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd",
    "special_tokens_map.json": "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf",
    "tokenizer.json": "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4",
    "tokenizer_config.json": "deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129",
    "vocab.json": "3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69",
}
# Bytes of tokenizers, rounded; settings have a few kilobytes.
_CLIP_SIZES = {"tokenizer.json": 2_220_000, "vocab.json": 960_000, "merges.txt": 525_000}
_QWEN_SIZES = {"tokenizer.json": 7_030_000, "vocab.json": 2_780_000, "merges.txt": 1_670_000}
_SETTINGS_SIZE = 5_000


def _one(
    url: str,
    purpose: str,
    licence: str,
    *,
    size: int,
    sha256: str = "",
    exact: bool = False,
    name: str = "",
) -> tuple[RemoteFile]:
    name = name or url.rpartition("/")[2]
    return (RemoteFile(name, url, sha256, purpose, size, exact, licence),)


def _small(
    folder: str, repository: str, names: tuple[str, ...], purpose: str, licence: str
) -> Iterator[RemoteFile]:
    """Settings and vocabularies of a hub repository, a few kilobytes to megabytes each."""
    checksums = _CLIP_L14_SMALL if repository == _CLIP_L14 else {}
    sizes = _QWEN_SIZES if repository == _QWEN else _CLIP_SIZES
    for name in names:
        yield RemoteFile(
            f"{folder}/{name}",
            f"{_HUB}/{repository}/resolve/main/{name}",
            checksums.get(name, ""),
            purpose,
            sizes.get(name, _SETTINGS_SIZE),
            licence=licence,
        )


# By the name that `find_weights` takes, in the order of the listing.
SCORER_WEIGHTS: dict[str, Weights] = {
    "hps-v2.1": _one(
        f"{_HUB}/xswu/HPSv2/resolve/main/HPS_v2.1_compressed.pt",
        "HPSv2.1 (ViT-H-14)",
        "Apache-2.0",
        size=1_970_000_000,
    ),
    "hps-v2.0": _one(
        f"{_HUB}/xswu/HPSv2/resolve/main/HPS_v2_compressed.pt",
        "HPSv2.0 (ViT-H-14)",
        "Apache-2.0",
        size=1_970_000_000,
    ),
    "clip-b32": _one(
        f"{_OPENAI}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        "CLIP ViT-B/32 (Hessel's CLIPScore)",
        "MIT",
        size=354_000_000,
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    "clip-hf-l14": (
        RemoteFile(
            "clip-vit-large-patch14/model.safetensors",
            f"{_HUB}/{_CLIP_L14}/resolve/main/model.safetensors",
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
            "CLIP ViT-L/14 in the form of transformers (torchmetrics' CLIPScore)",
            1_710_540_580,
            True,
            "MIT",
        ),
        *_small(
            "clip-vit-large-patch14",
            _CLIP_L14,
            ("config.json", "preprocessor_config.json", *_CLIP_TOKENIZER, "merges.txt"),
            "settings and tokenizer of that CLIP",
            "MIT",
        ),
    ),
    "clip-h14": _one(
        f"{_HUB}/{_CLIP_H14}/resolve/main/open_clip_pytorch_model.bin",
        "CLIP ViT-H-14 (LAION; the reward of SimpleAR)",
        "MIT",
        size=3_940_000_000,
        sha256="9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
        name="CLIP-ViT-H-14-laion2B-s32B-b79K/open_clip_pytorch_model.bin",
    ),
    "aesthetic-v1": _one(
        f"{_RAW}/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
        "aesthetic predictor v1 (a linear head on CLIP ViT-L/14)",
        "MIT",
        size=4_071,
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        exact=True,
    ),
    "aesthetic-v2": _one(
        f"{_RAW}/christophschuhmann/improved-aesthetic-predictor/main/sac+logos+ava1-l14-linearMSE.pth",
        "aesthetic predictor v2 (five linear layers on CLIP ViT-L/14)",
        "Apache-2.0",
        size=3_714_759,
        sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        exact=True,
    ),
    "pickscore": (
        RemoteFile(
            "pickscore/model.safetensors",
            f"{_HUB}/{_PICKSCORE}/resolve/main/model.safetensors",
            "",
            "PickScore v1 (ViT-H-14)",
            3_940_000_000,
            licence="MIT (its repository; the hub's card states none)",
        ),
        *_small("pickscore", _PICKSCORE, ("config.json",), "its sizes", "MIT"),
        *_small(
            "pickscore",
            _CLIP_H14,
            ("preprocessor_config.json", *_CLIP_TOKENIZER, "merges.txt"),
            "its processor",
            "MIT",
        ),
    ),
    "imagereward": (
        RemoteFile(
            "imagereward/ImageReward.pt",
            f"{_HUB}/{_IMAGEREWARD}/resolve/main/ImageReward.pt",
            "",
            "ImageReward v1.0 (BLIP-large)",
            1_790_000_000,
            licence="Apache-2.0",
        ),
        *_small("imagereward", _IMAGEREWARD, ("med_config.json",), "its sizes", "Apache-2.0"),
        RemoteFile(
            "imagereward/bert-base-uncased/vocab.txt",
            f"{_HUB}/bert-base-uncased/resolve/main/vocab.txt",
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "its word pieces (BERT)",
            231_508,
            True,
            "Apache-2.0",
        ),
    ),
    "hpsv3": _one(
        f"{_HUB}/MizzenAI/HPSv3/resolve/main/HPSv3.safetensors",
        "HPSv3 (Qwen2-VL-7B with a reward head)",
        "MIT (its package; the hub's card was not seen)",
        size=16_600_000_000,
    ),
    "hpsv3-base": tuple(
        _small(
            "Qwen2-VL-7B-Instruct",
            _QWEN,
            (
                *("config.json", "preprocessor_config.json", "chat_template.json"),
                *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
            ),
            "settings and tokenizer of HPSv3's base (Qwen2-VL-7B-Instruct), without its weights",
            "Apache-2.0",
        )
    ),
    "clip-flant5": HubFolder(
        "zhiqiulin/clip-flant5-xxl",
        ("*.json", "spiece.model"),
        "VQAScore's CLIP-FlanT5-XXL",
        23_000_000_000,
        "Apache-2.0",
    ),
    "clip-flant5-xl": HubFolder(
        "zhiqiulin/clip-flant5-xl",
        ("*.json", "spiece.model"),
        "VQAScore's CLIP-FlanT5-XL, the small one",
        6_500_000_000,
        "Apache-2.0",
    ),
    "clip-flant5-tower": tuple(
        _small(
            "clip-vit-large-patch14-336",
            _CLIP_L14_336,
            ("config.json", "preprocessor_config.json"),
            "settings of CLIP-FlanT5's picture tower (its weights are in CLIP-FlanT5's)",
            "MIT",
        )
    ),
    "inception-clean": _one(
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "Inception of clean-fid (TorchScript, by NVIDIA)",
        "Apache-2.0 (TensorFlow's network; NVIDIA states none for its copy)",
        size=95_600_000,
    ),
    "inception-fid": _one(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "Inception of pytorch-fid",
        "Apache-2.0",
        size=95_600_000,
        sha256="6726825d",
    ),
    "clip-l14-336": _one(
        f"{_OPENAI}/3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
        "CLIP ViT-L/14 of 336 pixels (CMMD)",
        "MIT",
        size=934_000_000,
        sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    "dinov2-l14": (
        RemoteFile(
            "dinov2-large/model.safetensors",
            f"{_HUB}/{_DINO}/resolve/main/model.safetensors",
            "",
            "DINOv2 ViT-L/14 (FD-DINOv2)",
            1_220_000_000,
            licence="Apache-2.0",
        ),
        *_small(
            "dinov2-large", _DINO, ("config.json", "preprocessor_config.json"), "its settings", "Apache-2.0"
        ),
    ),
}
