"""How people say what exists: assets, configuration, resources, selections."""
