variable "tenancy_id" {
  type        = string
  description = "OCID of the tenancy: dynamic groups and policies belong to it."
}

variable "compartment_id" {
  type        = string
  description = "OCID of the compartment that jobs, models, deployments, logs and the bucket are in. It must exist."
}

variable "region" {
  type        = string
  description = "Region that jobs run in, such as us-ashburn-1."
}

variable "home_region" {
  type        = string
  description = "Home region of the tenancy, such as us-ashburn-1; groups and policies are made there."
}

variable "profile" {
  type        = string
  default     = "DEFAULT"
  description = "Profile of ~/.oci/config of the administrator who applies this."
}

variable "name" {
  type        = string
  default     = "cloudtune"
  description = "What the names of everything made here begin with."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "The name has small letters, digits and dashes, begins with a letter, and has 30 characters at most."
  }
}

variable "users" {
  type        = string
  description = "Group of the people who run jobs; in an identity domain of its own 'Domain'/'Group', with the quotes. It must exist."
}

variable "features" {
  type        = set(string)
  default     = ["jobs", "automatic_logs", "storage", "secrets", "metrics", "models", "large_models", "deployments", "registry", "notebooks", "doctor"]
  description = "What cloudtune may be used for; a policy is made for each. jobs and storage are the least."

  validation {
    condition     = length(setsubtract(var.features, ["jobs", "automatic_logs", "storage", "secrets", "metrics", "models", "large_models", "deployments", "registry", "notebooks", "doctor"])) == 0
    error_message = "Features: jobs, automatic_logs, storage, secrets, metrics, models, large_models, deployments, registry, notebooks, doctor."
  }
}

variable "subnet_id" {
  type        = string
  default     = null
  description = "OCID of a subnet that is there already, in place of a network made here; its nodes must reach each other on all ports."
}

variable "network_compartment_id" {
  type        = string
  default     = null
  description = "OCID of the compartment of the network; default: compartment_id."
}

variable "vault_compartment_id" {
  type        = string
  default     = null
  description = "OCID of the compartment of the secrets that jobs read, such as the model hub's token; default: compartment_id."
}

variable "vcn_cidr" {
  type        = string
  default     = "10.60.0.0/16"
  description = "Addresses of the network made here."
}

variable "subnet_cidr" {
  type        = string
  default     = "10.60.0.0/20"
  description = "Addresses of the subnet, within vcn_cidr; each node takes one, and the network keeps three for itself."
}

variable "bucket" {
  type        = string
  description = "Name of the bucket for data, outputs, checkpoints and models; it is made here, and unique in the tenancy."
}

variable "metrics_namespace" {
  type        = string
  default     = "cloudtune"
  description = "Namespace of the GPU metrics in OCI Monitoring: the value of OCI__METRICS_NAMESPACE in the job."
}

variable "repository" {
  type        = string
  default     = "cloudtune"
  description = "Name of the container repository for images of jobs and deployments; it is made here with feature registry."
}

variable "log_retention_days" {
  type        = number
  default     = 30
  description = "How long logs are kept: 30, 60, 90, 120, 150 or 180 days."

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180], var.log_retention_days)
    error_message = "Logs are kept for 30, 60, 90, 120, 150 or 180 days."
  }
}
