"""Part of Holdfast; see the folder's DESIGN.md."""
