# The provider is pinned to the release whose documentation the tests hold these files against.
terraform {
  required_version = ">= 1.5"

  required_providers {
    oci = {
      source  = "oracle/oci"
      version = "8.28.0"
    }
  }
}

provider "oci" {
  region              = var.region
  config_file_profile = var.profile
}

# Groups and policies are made in the tenancy's home region and copied from there to all others.
provider "oci" {
  alias               = "home"
  region              = var.home_region
  config_file_profile = var.profile
}
