"""The About tab: what this is and is not for, privacy, versions."""

from importlib.metadata import version

import gradio as gr

from mtl import __version__

TEXT = """
### What it does
One network looks at a photo once and gives two answers: which skin or hair type it shows, and which pixels are lesion.
It is an EfficientNet-B0 encoder with a classification head and a UNet decoder, 5.7 million parameters, trained jointly.

### What it is not
It is **not a medical device** and names no disease and no risk. An outlined lesion says nothing about whether it is
harmless, and a photo without an outline says nothing about health. Ask a doctor about any change of your skin.

### The shipped model
Trained and measured on 4,754 photos: 2,230 dermoscopic close-ups of the ISIC 2018 challenge with drawn lesion masks
(CC-0), and photos of hair and skin types collected on the web, whose rights are unknown: **not for commercial use**.
It has seen no photo of the class *sensitive* and never answers it. Its labels of skin types are weak, and so are its
answers. `checkpoints/default/README.md` has its figures.

### Privacy
Photos are analysed on the computer that runs this program and are sent nowhere else. They are not logged and not kept:
uploaded files are deleted from its temporary folder within hours. Nothing is collected about visitors. Where this page
runs on somebody else's computer, such as a public Space, that computer sees the photos.
"""


def build_about_tab() -> None:
    packages = ("torch", "gradio", "pytorch-lightning")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    with gr.Column(elem_id="mtl-about"):
        gr.Markdown(f"{TEXT}\n### Versions\nmtl {__version__}, {versions}. Apache-2.0.")
