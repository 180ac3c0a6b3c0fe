"""An order in a shop: payment and inventory side by side, then shipment and confirmation."""
