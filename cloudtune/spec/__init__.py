"""What is wanted: jobs, infrastructures and runtimes as frozen values, and the YAML in which people write them."""
