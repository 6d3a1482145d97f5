use super::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

/// Loaded once: 55,000 rows take seconds in a debug build.
fn world() -> &'static World {
    static WORLD: std::sync::LazyLock<World> = std::sync::LazyLock::new(|| {
        World::load(
            &Path::new(DATA).join("services.json"),
            &Path::new(DATA).join("tool_results.jsonl.gz"),
        )
        .expect("shipped data")
    });
    &WORLD
}

fn call(world: &World, tool: &str, arguments: Value) -> Result<Value, Refusal> {
    world.answer(tool, arguments.as_object().expect("object"))
}

#[test]
fn a_query_gives_the_first_row_that_equals_every_argument() {
    let world = world();
    let found = call(
        world,
        "Restaurants_1.FindRestaurants",
        json!({"cuisine": "american", "city": "San  Jose", "price_range": "dontcare"}),
    );
    assert_eq!(found.expect("recorded")["restaurant_name"], "71 Saint Peter");
    let dearer = call(
        world,
        "Restaurants_1.FindRestaurants",
        json!({"cuisine": "American", "city": "San Jose", "price_range": "expensive"}),
    );
    assert_eq!(dearer.expect("recorded")["restaurant_name"], "Black Sheep Brasserie");
}

#[test]
fn a_transaction_without_a_row_keeps_the_row_that_it_came_from_and_takes_its_own_arguments() {
    let arguments =
        json!({"restaurant_name": "71 Saint Peter", "city": "San Jose", "time": "03:33", "party_size": "6"});
    let booked = call(world(), "Restaurants_1.ReserveRestaurant", arguments).expect("merged");
    assert_eq!(
        (&booked["time"], &booked["party_size"], &booked["street_address"]),
        (&json!("03:33"), &json!("6"), &json!("71 North San Pedro Street"))
    );
}

#[test]
fn an_order_to_a_service_with_no_other_method_is_confirmed_as_given() {
    let arguments = json!({"destination": "9999 Nowhere Lane", "number_of_riders": "2", "shared_ride": "True"});
    assert_eq!(call(world(), "RideSharing_1.GetRide", arguments.clone()), Ok(arguments));
}

#[test]
fn nothing_that_fits_is_no_match_and_never_a_made_up_row() {
    let world = world();
    assert_eq!(
        call(
            world,
            "Restaurants_1.FindRestaurants",
            json!({"cuisine": "Martian", "city": "San Jose"})
        ),
        Err(Refusal::NoMatch)
    );
    let booked = call(
        world,
        "Restaurants_1.ReserveRestaurant",
        json!({"restaurant_name": "No Such Place", "city": "San Jose", "time": "10:00"}),
    );
    assert_eq!(booked, Err(Refusal::NoMatch));
}

#[test]
fn wrong_arguments_and_tools_are_refused_by_name() {
    let world = world();
    assert_eq!(call(world, "Nowhere_1.Find", json!({})), Err(Refusal::Unknown));
    assert_eq!(call(world, "nonsense", json!({})), Err(Refusal::Unknown));
    let Err(Refusal::Invalid(faults)) = call(
        world,
        "Restaurants_1.FindRestaurants",
        json!({"city": ["x"], "colour": "red"}),
    ) else {
        panic!("must be invalid")
    };
    let fields: Vec<_> = faults.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["cuisine", "colour", "city"]);
}

#[test]
fn every_method_is_listed_with_schemas_and_only_queries_are_idempotent() {
    let tools = world().tools();
    assert!(tools.len() > 60);
    let find = tools
        .iter()
        .find(|t| t.name == "Restaurants_2.FindRestaurants")
        .expect("listed");
    assert_eq!(find.input["required"], json!(["category", "location"]));
    assert!(find.idempotent && !tools.iter().any(|t| t.name.contains("Reserve") && t.idempotent));
}
