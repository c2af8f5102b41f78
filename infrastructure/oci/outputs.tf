locals {
  subnet_id = var.subnet_id != null ? var.subnet_id : oci_core_subnet.nodes[0].id
  namespace = data.oci_objectstorage_namespace.tenancy.namespace
}

output "job_yaml" {
  description = "The infrastructure of a job, to be pasted below `spec:`; choose shapeName and blockStorageSize."
  value       = <<-YAML
    infrastructure:
      kind: infrastructure
      type: dataScienceJob
      spec:
        compartmentId: ${var.compartment_id}
        projectId: ${oci_datascience_project.jobs.id}
        subnetId: ${local.subnet_id}
        logGroupId: ${oci_logging_log_group.jobs.id}
        logId: ${oci_logging_log.jobs.id}
        shapeName: VM.GPU.A10.2
        blockStorageSize: 256
        storageMount:
          - src: oci://${oci_objectstorage_bucket.jobs.name}@${local.namespace}/outputs
            dest: outputs
  YAML
}

output "bucket_uri" {
  description = "Where inputs and outputs go: for inputs, outputUri, -o."
  value       = "oci://${oci_objectstorage_bucket.jobs.name}@${local.namespace}/"
}

output "deployment_logs" {
  description = "OCIDs for deployments: the log group, the predict log and the access log."
  value = {
    logGroupId   = oci_logging_log_group.jobs.id
    predictLogId = oci_logging_log.predict.id
    accessLogId  = oci_logging_log.access.id
  }
}

output "image_repository" {
  description = "Where images are pushed: docker login REGION.ocir.io first. None without feature registry."
  value       = one([for one in oci_artifacts_container_repository.images : "${var.region}.ocir.io/${local.namespace}/${one.display_name}"])
}

output "statements" {
  description = "The statements of the policies, by feature."
  value       = local.statements
}
