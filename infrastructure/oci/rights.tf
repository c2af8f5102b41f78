# Who may do what, and why: each line is one right, its comment the feature of cloudtune that needs it. The same rights
# stand in cloudtune/rights/oci.json, by which `cloudtune doctor` names the one that is missing; tests compare the two,
# and both with what cloudtune calls.

locals {
  compartment = "compartment id ${var.compartment_id}"
  network     = coalesce(var.network_compartment_id, var.compartment_id)
  vault       = coalesce(var.vault_compartment_id, var.compartment_id)
  the_bucket  = "target.bucket.name='${var.bucket}'"
  the_images  = "target.repo.name='${var.repository}'"
  the_metrics = "target.metrics.namespace='${var.metrics_namespace}'"

  # People who run jobs, and with feature notebooks the notebook sessions in which they work.
  users_may = {
    jobs = {
      # a job, a model and a deployment belong to a project
      projects = "read data-science-projects in ${local.compartment}"
      # run makes a job and uploads its artifact; delete removes it
      jobs = "manage data-science-jobs in ${local.compartment}"
      # run starts it; watch and status read it; cancel and delete end it
      job_runs = "manage data-science-job-runs in ${local.compartment}"
      # a job names its subnet; doctor reads its security lists and routes
      network = "use virtual-network-family in compartment id ${local.network}"
      # a job names its log; watch searches it
      log_groups = "read log-groups in ${local.compartment}"
      # watch and logs search it; the service checks it of whoever starts a run
      log_content = "use log-content in ${local.compartment}"
    }
    automatic_logs = {
      # logGroupId without logId: the service makes a log for each run, as its user; deploy makes one
      new_logs = "manage log-groups in ${local.compartment}"
    }
    storage = {
      # outputs and prepared data are looked for before they are listed
      buckets = "read buckets in ${local.compartment} where ${local.the_bucket}"
      # inputs are uploaded; outputs are listed, merged, downloaded, removed
      objects = "manage objects in ${local.compartment} where ${local.the_bucket}"
      # storageMount by address and path: mount target and export are looked up
      file_systems = "inspect file-family in compartment id ${local.network}"
    }
    secrets = {
      # doctor asks whether a secret exists; its value is not in this right
      secrets = "read secrets in compartment id ${local.vault}"
    }
    metrics = {
      # GPU utilisation, memory, power and temperature, in the console
      metrics = "read metrics in ${local.compartment} where ${local.the_metrics}"
    }
    models = {
      # register --to oci: model, artifact, provenance, metadata
      models = "manage data-science-models in ${local.compartment}"
      # register --to oci: the versions of a model are one set
      model_version_sets = "manage data-science-modelversionsets in ${local.compartment}"
      # large artifacts and deployments are followed with progress
      work_requests = "read data-science-work-requests in ${local.compartment}"
    }
    deployments = {
      # deploy --to oci, invoke, delete
      deployments = "manage data-science-model-deployments in ${local.compartment}"
    }
    registry = {
      # build --push; doctor looks whether the image of a job is there
      images = "use repos in ${local.compartment} where ${local.the_images}"
    }
    notebooks = {
      # in a notebook session, compartment, project and subnet are its own by default
      notebook_sessions = "read data-science-notebook-sessions in ${local.compartment}"
    }
    doctor = {
      # doctor looks whether the compartment exists
      compartments = "inspect compartments in tenancy"
      # doctor compares the job's GPUs with what is left of the limit
      limits = "read resource-availability in ${local.compartment}"
    }
  }

  # Nodes, as the resource principal of their job run.
  job_runs_may = {
    jobs = {
      # what the nodes print is written to the log as the job run
      log_content = "use log-content in ${local.compartment}"
    }
    storage = {
      # the service mounts the bucket on nodes; outputUri is tried before training
      buckets = "read buckets in ${local.compartment} where ${local.the_bucket}"
      # nodes read inputs and conda packs, and write outputs and checkpoints
      objects = "manage objects in ${local.compartment} where ${local.the_bucket}"
    }
    secrets = {
      # env: secret and gitSecretId are fetched on the node
      secret_values = "read secret-bundles in compartment id ${local.vault}"
    }
    metrics = {
      # nodes post them under OCI__METRICS_NAMESPACE
      metrics = "use metrics in ${local.compartment} where ${local.the_metrics}"
    }
    registry = {
      # container jobs pull their image
      images = "read repos in ${local.compartment} where ${local.the_images}"
    }
  }

  # Served models, as the resource principal of their deployment.
  deployments_may = {
    deployments = {
      # access and predict logs are written as the deployment
      log_content = "use log-content in ${local.compartment}"
      # models by reference stay in the bucket
      buckets = "read buckets in ${local.compartment} where ${local.the_bucket}"
      # models by reference are read from the bucket
      objects = "read objects in ${local.compartment} where ${local.the_bucket}"
    }
    registry = {
      # deployments pull the image that serves the model
      images = "read repos in ${local.compartment} where ${local.the_images}"
    }
  }

  # The Data Science service itself.
  datascience_may = {
    jobs = {
      # the service puts the nodes into the subnet
      network = "use virtual-network-family in compartment id ${local.network}"
    }
    large_models = {
      # register: the service copies a large artifact out of the bucket
      large_models = "manage object-family in ${local.compartment} where ${local.the_bucket}"
    }
  }

  # Object Storage itself, in the region of the bucket.
  objectstorage_may = {
    large_models = {
      # register: the copy itself is Object Storage's, in this region
      large_models = "manage object-family in ${local.compartment} where ${local.the_bucket}"
    }
  }

  subjects = {
    users         = concat(["group ${var.users}"], contains(var.features, "notebooks") ? ["dynamic-group ${var.name}-notebooks"] : [])
    job_runs      = ["dynamic-group ${var.name}-job-runs"]
    deployments   = ["dynamic-group ${var.name}-deployments"]
    datascience   = ["service datascience"]
    objectstorage = ["service objectstorage-${var.region}"]
  }

  may = {
    users         = local.users_may
    job_runs      = local.job_runs_may
    deployments   = local.deployments_may
    datascience   = local.datascience_may
    objectstorage = local.objectstorage_may
  }

  # The statements of each feature: "allow WHO to DO".
  statements = {
    for feature in var.features : feature => flatten([
      for who, rights in local.may : [
        for right in values(lookup(rights, feature, {})) : [
          for subject in local.subjects[who] : "allow ${subject} to ${right}"
        ]
      ]
    ])
  }
}
