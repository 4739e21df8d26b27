"""How fast is it, honestly: varied lines, everything on, ratios against a plain COPY of the same rows in the same run."""
