"""Build the application and launch it: `python app.py`, here or on a Hugging Face Space."""

import argparse
import os
import sys
from pathlib import Path

# Before gradio is imported: it would look up addresses of its own on other servers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Skin analysis: train and use one network for skin, hair and lesions.")
    # A Space sets these two variables.
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), help="0: a free one"
    )
    parser.add_argument(
        "--data-root", type=Path, default=HERE / "data", help="the folder whose folders can be trained on"
    )
    parser.add_argument("--runs-dir", type=Path, default=HERE / "runs", help="where runs are kept")
    parser.add_argument(
        "--checkpoint", type=Path, default=HERE / "checkpoints" / "default", help="the model to start with"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    args = parser.parse_args()

    from mtl.errors import MtlError
    from mtl.ui.app import AppSettings, build_app
    from mtl.ui.launch import launch

    settings = AppSettings(args.data_root, args.runs_dir, args.checkpoint, HERE / "assets" / "examples")
    try:
        launch(build_app(settings), args.host, args.port, open_browser=args.open)
    except MtlError as error:
        sys.exit(f"app.py: {error}")


if __name__ == "__main__":
    main()
