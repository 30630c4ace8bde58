"""lungan: find out, honestly, whether a GAN can augment a small medical image set."""

__version__ = "0.1.0"
