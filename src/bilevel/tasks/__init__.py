"""What the command line offers: image files and the denoising task."""
