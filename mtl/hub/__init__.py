"""Models travel: to the Hugging Face Hub and back."""
