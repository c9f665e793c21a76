"""Reading image files, matching the files of a folder to draws, grids and masks."""
