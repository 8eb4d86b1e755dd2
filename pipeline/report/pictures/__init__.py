"""A whole run, or several, on one sheet, which is written as PNG, SVG and PDF."""
