"""The client SDK. Import from ``holdfast``; this package's modules are private."""
