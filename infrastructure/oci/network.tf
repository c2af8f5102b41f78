# A private subnet whose nodes reach each other on all ports (torchrun's rendezvous, NCCL and Gloo choose theirs), the
# internet through a NAT gateway (GitHub, the model hub, pip), and Oracle's own services without leaving Oracle's network.

locals {
  make_network = var.subnet_id == null ? 1 : 0
}

data "oci_core_services" "oracle" {
  count = local.make_network

  filter {
    name   = "name"
    values = ["All .* Services In Oracle Services Network"]
    regex  = true
  }
}

resource "oci_core_vcn" "jobs" {
  count          = local.make_network
  compartment_id = local.network
  display_name   = var.name
  cidr_blocks    = [var.vcn_cidr]
  dns_label      = "jobs"
}

resource "oci_core_nat_gateway" "jobs" {
  count          = local.make_network
  compartment_id = local.network
  vcn_id         = oci_core_vcn.jobs[0].id
  display_name   = "${var.name}-nat"
}

resource "oci_core_service_gateway" "jobs" {
  count          = local.make_network
  compartment_id = local.network
  vcn_id         = oci_core_vcn.jobs[0].id
  display_name   = "${var.name}-services"

  services {
    service_id = data.oci_core_services.oracle[0].services[0].id
  }
}

resource "oci_core_route_table" "jobs" {
  count          = local.make_network
  compartment_id = local.network
  vcn_id         = oci_core_vcn.jobs[0].id
  display_name   = "${var.name}-nodes"

  route_rules {
    description       = "Object Storage, Logging, Monitoring, Vault, the container registry"
    destination       = data.oci_core_services.oracle[0].services[0].cidr_block
    destination_type  = "SERVICE_CIDR_BLOCK"
    network_entity_id = oci_core_service_gateway.jobs[0].id
  }

  route_rules {
    description       = "everything else: code, models and packages from the internet"
    destination       = "0.0.0.0/0"
    destination_type  = "CIDR_BLOCK"
    network_entity_id = oci_core_nat_gateway.jobs[0].id
  }
}

resource "oci_core_security_list" "jobs" {
  count          = local.make_network
  compartment_id = local.network
  vcn_id         = oci_core_vcn.jobs[0].id
  display_name   = "${var.name}-nodes"

  ingress_security_rules {
    description = "nodes of a job talk to each other on ports that nobody knows beforehand"
    protocol    = "all"
    source      = var.subnet_cidr
    source_type = "CIDR_BLOCK"
  }

  egress_security_rules {
    description      = "out to services, code, models and packages"
    protocol         = "all"
    destination      = "0.0.0.0/0"
    destination_type = "CIDR_BLOCK"
  }
}

resource "oci_core_subnet" "nodes" {
  count                      = local.make_network
  compartment_id             = local.network
  vcn_id                     = oci_core_vcn.jobs[0].id
  display_name               = "${var.name}-nodes"
  cidr_block                 = var.subnet_cidr
  dns_label                  = "nodes"
  prohibit_public_ip_on_vnic = true
  route_table_id             = oci_core_route_table.jobs[0].id
  security_list_ids          = [oci_core_security_list.jobs[0].id]
}
