"""Who sends: one client a service family, the only importers of SDKs."""
