"""Large-kernel depthwise convolution; see README.md."""
