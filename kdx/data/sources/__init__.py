"""Sources of images: data sets, files and generators."""
