"""Reading image files, finding which file shows which draw, grids and masks."""
