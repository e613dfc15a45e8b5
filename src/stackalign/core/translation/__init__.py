"""Translation of frames at the Cramer-Rao bound: search, template, fit and the registrar CrossCorrelation."""
