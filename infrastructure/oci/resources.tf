# What a job's YAML names: the project, the bucket, the log group with its logs, and the repository of images.

data "oci_objectstorage_namespace" "tenancy" {
  compartment_id = var.tenancy_id
}

resource "oci_datascience_project" "jobs" {
  compartment_id = var.compartment_id
  display_name   = var.name
  description    = "Jobs, models and deployments of cloudtune"
}

resource "oci_objectstorage_bucket" "jobs" {
  compartment_id = var.compartment_id
  namespace      = data.oci_objectstorage_namespace.tenancy.namespace
  name           = var.bucket
  access_type    = "NoPublicAccess"
  storage_tier   = "Standard"
  versioning     = "Enabled" # the model catalog refers to versions of objects
}

resource "oci_logging_log_group" "jobs" {
  compartment_id = var.compartment_id
  display_name   = var.name
  description    = "What jobs print, and what deployments are asked"
}

# The three logs are custom logs: the services write into them with the rights of the job run or the deployment.
resource "oci_logging_log" "jobs" {
  display_name       = "${var.name}-jobs"
  log_group_id       = oci_logging_log_group.jobs.id
  log_type           = "CUSTOM"
  is_enabled         = true
  retention_duration = var.log_retention_days
}

resource "oci_logging_log" "predict" {
  display_name       = "${var.name}-predict"
  log_group_id       = oci_logging_log_group.jobs.id
  log_type           = "CUSTOM"
  is_enabled         = true
  retention_duration = var.log_retention_days
}

resource "oci_logging_log" "access" {
  display_name       = "${var.name}-access"
  log_group_id       = oci_logging_log_group.jobs.id
  log_type           = "CUSTOM"
  is_enabled         = true
  retention_duration = var.log_retention_days
}

resource "oci_artifacts_container_repository" "images" {
  count          = contains(var.features, "registry") ? 1 : 0
  compartment_id = var.compartment_id
  display_name   = var.repository
  is_public      = false
}
