# Who the nodes, the deployments and the notebooks are, and the policies with the rights of rights.tf. All is attached to
# the tenancy, because a statement may speak only of the compartment that it is attached to and those below.

resource "oci_identity_dynamic_group" "job_runs" {
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-job-runs"
  description    = "Nodes of jobs of cloudtune"
  matching_rule  = "ALL {resource.type='datasciencejobrun', resource.compartment.id='${var.compartment_id}'}"
}

resource "oci_identity_dynamic_group" "deployments" {
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-deployments"
  description    = "Served models of cloudtune"
  matching_rule  = "ALL {resource.type='datasciencemodeldeployment', resource.compartment.id='${var.compartment_id}'}"
}

resource "oci_identity_dynamic_group" "notebooks" {
  count          = contains(var.features, "notebooks") ? 1 : 0
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-notebooks"
  description    = "Notebook sessions in which cloudtune is used"
  matching_rule  = "ALL {resource.type='datasciencenotebooksession', resource.compartment.id='${var.compartment_id}'}"
}

resource "oci_identity_policy" "feature" {
  for_each       = local.statements
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-${replace(each.key, "_", "-")}"
  description    = "What cloudtune needs for ${replace(each.key, "_", " ")}"
  statements     = each.value

  depends_on = [
    oci_identity_dynamic_group.job_runs,
    oci_identity_dynamic_group.deployments,
    oci_identity_dynamic_group.notebooks,
  ]
}
