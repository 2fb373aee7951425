//! A small shop, made up: products, their suppliers' stock, an archive that is offline, and orders that order nothing.

use std::{fmt, time::Duration};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::{Context, Effects, Tool, ToolError};

const LOOK_UP: Duration = Duration::from_millis(300);
const REPORT: Duration = Duration::from_millis(1500);
const REPORT_STEPS: u32 = 5;

#[derive(Clone, Serialize)]
struct Product {
    id: &'static str,
    name: &'static str,
    price_eur: f64,
    supplier: Supplier,
    #[serde(skip)]
    stock: u32,
}

/// A supplier's id, as products name it.
#[derive(Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
enum Supplier {
    #[serde(rename = "s-1")]
    North,
    #[serde(rename = "s-2")]
    Harbour,
    #[serde(rename = "s-3")]
    Hill,
}

impl fmt::Display for Supplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::North => "s-1",
            Self::Harbour => "s-2",
            Self::Hill => "s-3",
        })
    }
}

const PRODUCTS: [Product; 6] = [
    Product {
        id: "p-100",
        name: "Desk lamp",
        price_eur: 39.5,
        supplier: Supplier::North,
        stock: 12,
    },
    Product {
        id: "p-101",
        name: "Office chair",
        price_eur: 189.0,
        supplier: Supplier::Harbour,
        stock: 3,
    },
    Product {
        id: "p-102",
        name: "Standing desk",
        price_eur: 449.0,
        supplier: Supplier::Harbour,
        stock: 0,
    },
    Product {
        id: "p-103",
        name: "Monitor arm",
        price_eur: 79.9,
        supplier: Supplier::Hill,
        stock: 41,
    },
    Product {
        id: "p-104",
        name: "Keyboard",
        price_eur: 99.0,
        supplier: Supplier::Hill,
        stock: 18,
    },
    Product {
        id: "p-105",
        name: "Whiteboard",
        price_eur: 64.0,
        supplier: Supplier::North,
        stock: 7,
    },
];

/// Arguments of `look_up_product` and `price_history`.
#[derive(Deserialize, JsonSchema)]
struct ProductId {
    /// The product's id, such as "p-100".
    #[schemars(regex(pattern = r"^p-[0-9]+$"))]
    product: String,
}

/// Arguments of `stock_report`.
#[derive(Deserialize, JsonSchema)]
struct StockReport {
    /// The supplier's id, as `look_up_product` gives it.
    supplier: Supplier,
}

/// Arguments of `place_order`.
#[derive(Deserialize, JsonSchema)]
struct PlaceOrder {
    /// The supplier's id, as `look_up_product` gives it.
    supplier: Supplier,
    /// The product's id, such as "p-100".
    #[schemars(regex(pattern = r"^p-[0-9]+$"))]
    product: String,
    /// How many pieces.
    #[schemars(range(min = 1, max = 100))]
    quantity: u32,
}

#[derive(Serialize)]
struct StockLine {
    product: &'static str,
    in_stock: u32,
}

#[derive(Serialize)]
struct Stock {
    supplier: Supplier,
    products: Vec<StockLine>,
}

#[derive(Serialize)]
struct Order {
    confirmation: String,
    product: &'static str,
    supplier: Supplier,
    quantity: u32,
    total_eur: f64,
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::typed(
            "look_up_product",
            "Looks up a product of the shop by its id: its name, its price in EUR, and the id of its supplier.",
            |args: ProductId, _| async move {
                sleep(LOOK_UP).await;
                find(&args.product)
            },
        )
        .effects(Effects::ReadOnly),
        Tool::typed(
            "stock_report",
            "Reports how many pieces of each of its products a supplier has in stock. Takes a second or two.",
            stock_report,
        )
        .effects(Effects::ReadOnly),
        Tool::typed(
            "price_history",
            "Gives the earlier prices of a product from the price archive.",
            |args: ProductId, _| async move { price_history(&args.product) },
        )
        .effects(Effects::ReadOnly),
        Tool::typed(
            "place_order",
            "Orders some pieces of a product from its supplier and gives the order's confirmation. This is a \
             demonstration: nothing is ordered.",
            |args: PlaceOrder, context: Context| async move { place_order(&args, context.idempotency_key()) },
        )
        .effects(Effects::SideEffecting),
    ]
}

fn find(id: &str) -> Result<Product, ToolError> {
    let product = PRODUCTS.iter().find(|product| product.id == id);
    product.cloned().ok_or_else(|| {
        let known: Vec<_> = PRODUCTS.iter().map(|product| product.id).collect();
        ToolError::failed(format!(
            "There is no product {id:?}. The products are {}.",
            known.join(", ")
        ))
        .effect_not_started()
    })
}

async fn stock_report(args: StockReport, context: Context) -> Result<Stock, ToolError> {
    for step in 0..REPORT_STEPS {
        context.progress(
            "counting the shelves",
            f64::from(step) / f64::from(REPORT_STEPS),
        );
        sleep(REPORT / REPORT_STEPS).await;
    }
    let products = PRODUCTS
        .iter()
        .filter(|product| product.supplier == args.supplier);
    let products = products.map(|product| StockLine {
        product: product.id,
        in_stock: product.stock,
    });
    Ok(Stock {
        supplier: args.supplier,
        products: products.collect(),
    })
}

fn price_history(product: &str) -> Result<(), ToolError> {
    Err(ToolError::failed(format!(
        "The price archive is offline, so the history of {product} cannot be read. Go on without it."
    )))
}

fn place_order(args: &PlaceOrder, idempotency_key: &str) -> Result<Order, ToolError> {
    let product = find(&args.product)?;
    if product.supplier != args.supplier {
        let message = format!(
            "{} is supplied by {}, not by {}.",
            product.id, product.supplier, args.supplier
        );
        return Err(ToolError::invalid_arguments(message)
            .violation("/supplier", "is not the product's supplier"));
    }
    if !(1..=100).contains(&args.quantity) {
        let error = ToolError::invalid_arguments("From 1 to 100 pieces can be ordered at once.");
        return Err(error.violation("/quantity", "must be from 1 to 100"));
    }
    // The same key gives the same order: an honest shop would tell a repeat by it.
    let digest = Sha256::digest(idempotency_key);
    let confirmation = format!("{:X}", Bytes::copy_from_slice(&digest[..4]));
    Ok(Order {
        confirmation: format!("order-{confirmation}"),
        product: product.id,
        supplier: product.supplier,
        quantity: args.quantity,
        total_eur: product.price_eur * f64::from(args.quantity),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_product_is_told_with_the_known_ones() {
        let error = find("p-999").err().unwrap();
        assert!(
            error.message().contains("p-999") && error.message().contains("p-105"),
            "{error}"
        );
    }

    #[test]
    fn a_suppliers_name_is_the_one_in_its_json() {
        for product in PRODUCTS {
            assert_eq!(
                serde_json::to_value(product.supplier).unwrap(),
                product.supplier.to_string()
            );
        }
    }

    #[test]
    fn an_order_is_the_same_for_the_same_key() {
        let order = |supplier, quantity, key| {
            place_order(
                &PlaceOrder {
                    supplier,
                    product: "p-101".to_owned(),
                    quantity,
                },
                key,
            )
        };
        let one = order(Supplier::Harbour, 2, "k").unwrap();
        assert_eq!(
            one.confirmation,
            order(Supplier::Harbour, 2, "k").unwrap().confirmation
        );
        assert_ne!(
            one.confirmation,
            order(Supplier::Harbour, 2, "l").unwrap().confirmation
        );
        assert!(order(Supplier::Hill, 2, "k").is_err());
        assert!(order(Supplier::Harbour, 0, "k").is_err());
    }
}
