"""What every part uses: configuration, files, errors, progress, processes."""
