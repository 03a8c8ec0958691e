"""The app: products, orders, and what workers do about them."""
