"""What ops of torchvision and Albumentations are called here: hints in error texts.

Quoted by `error_texts`. Only names are translated: numbers differ, and are documented
(docs/augmentation.md). Pure.
"""

from __future__ import annotations

from typing import Final

_ON_THE_DEVICE: Final = "augd.torch.connect does it, on the device: leave it out"
_NO_OP: Final = "there is no such op; an own op can do it (docs/own-ops.md)"

# By letters alone, in lower case.
_CALLED: Final = {
    "adjustgamma": "gamma",
    "adjustsharpness": "sharpness",
    "advancedblur": "gaussian_blur",
    "affine": "rotate, zoom, shear and translate, an op each",
    "augmix": "aug_mix",
    "autoaugment": "auto_augment",
    "autocontrast": "autocontrast",
    "blur": "gaussian_blur",
    "centercrop": "center_crop",
    "clahe": _NO_OP,
    "coarsedropout": "coarse_dropout",
    "colorjitter": "color_jitter",
    "compose": "the list of ops itself: leave Compose out",
    "cutmix": "mix beside ops, a key of the recipe",
    "cutout": "cutout",
    "elastictransform": "local_warp",
    "equalize": "equalize",
    "fancypca": "pca",
    "fivecrop": "five_crop",
    "flip": "mirror, which flips left and right, or vertical_flip",
    "gaussianblur": "gaussian_blur",
    "gaussiannoise": "gaussian_noise, whose std is in grey levels",
    "gaussnoise": "gaussian_noise, whose std is in grey levels",
    "grayscale": 'grayscale with "p": 1.0',
    "griddistortion": "local_warp",
    "horizontalflip": "mirror",
    "huesaturationvalue": "hue, saturation and brightness, an op each",
    "imagecompression": "jpeg",
    "invertimg": "invert",
    "jpeg": "jpeg",
    "jpegcompression": "jpeg",
    "lambda": _NO_OP,
    "longestmaxsize": "resize with longest, which pads",
    "mixup": "mix beside ops, a key of the recipe",
    "normalize": _ON_THE_DEVICE,
    "oneof": "one_of",
    "opticaldistortion": "lens",
    "pad": "random_crop with pad, or resize with longest",
    "padifneeded": "random_crop with pad, or resize with longest",
    "perspective": _NO_OP,
    "piltotensor": _ON_THE_DEVICE,
    "randaugment": "rand_augment",
    "randomadjustsharpness": "sharpness",
    "randomaffine": "rotate, zoom, shear and translate, an op each",
    "randomapply": "all_of",
    "randomautocontrast": "autocontrast",
    "randombrightness": "brightness",
    "randombrightnesscontrast": "brightness and contrast, an op each",
    "randomchoice": "one_of",
    "randomcolorjitter": "color_jitter",
    "randomcontrast": "contrast",
    "randomcrop": "random_crop",
    "randomequalize": "equalize",
    "randomerasing": "erase",
    "randomgamma": "gamma",
    "randomgrayscale": "grayscale",
    "randomhorizontalflip": "mirror",
    "randominvert": "invert",
    "randomorder": "all_of with shuffle",
    "randomperspective": _NO_OP,
    "randomposterize": "posterize",
    "randomresize": "scale_jitter",
    "randomresizedcrop": "random_resized_crop",
    "randomrotation": "rotate",
    "randomscale": "zoom",
    "randomshortestsize": "scale_jitter",
    "randomsizedcrop": "random_resized_crop",
    "randomsolarize": "solarize",
    "randomverticalflip": "vertical_flip",
    "resize": "resize",
    "rgbshift": "rgb_shift",
    "rotate": "rotate",
    "saferotate": "rotate",
    "scalejitter": "scale_jitter",
    "sequential": "all_of",
    "sharpen": "sharpness",
    "shiftscalerotate": "translate, zoom and rotate, an op each",
    "smallestmaxsize": "resize with short",
    "solarizeadd": "solarize_add",
    "tencrop": "ten_crop",
    "todtype": _ON_THE_DEVICE,
    "tofloat": _ON_THE_DEVICE,
    "togray": "grayscale",
    "toimage": "nothing: images are decoded before the first op. Leave it out",
    "totensor": _ON_THE_DEVICE,
    "totensorv2": _ON_THE_DEVICE,
    "threeaugment": "three_augment",
    "trivialaugment": "trivial_augment",
    "trivialaugmentwide": "trivial_augment",
    "verticalflip": "vertical_flip",
}


def called_here(name: object) -> str | None:
    """Return augd's name for an op of another library, or the op that does its work; None if
    unknown.
    """
    letters = "".join(filter(str.isalnum, str(name)[:60])).lower()
    here = _CALLED.get(letters)
    if here is None or here == name:
        return None
    if here in (_ON_THE_DEVICE, _NO_OP):
        return f"{str(name)[:60]}: {here}."
    return f"{str(name)[:60]}: did you mean {here}?"
