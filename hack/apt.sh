# shellcheck shell=bash
# To be sourced: gets packages of another Debian suite without changing this machine's apt.

# apt_source_in DIRECTORY TYPE SUITE: makes a directory in which apt has one source and no installed packages.
# The mirror is the one of the machine's own packages; its archives of updates have a dash in their name.
# Fails if apt has no mirror.
apt_source_in() {
	local directory=$1 type=$2 suite=$3 uri
	# shellcheck disable=SC2016 # apt's own variables
	uri=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(SUITE) $(CREATED_BY)' |
		awk '$2 == "main" && $4 == "Packages" && $3 !~ /-/ {print $1; exit}')
	[[ $uri ]] || return 1
	mkdir -p "$directory"/{lists,debs,cache}/partial
	: >"$directory/status"
	printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
		"$type" "$uri" "$suite" >"$directory/own.sources"
}

# apt_in DIRECTORY COMMAND…: runs a command of apt with that directory's source, lists and cache.
apt_in() {
	local directory=$1 command=$2
	shift 2
	"$command" -qq -o APT::Sandbox::User=root -o Debug::NoLocking=1 \
		-o Dir::State="$directory" -o Dir::State::Lists="$directory/lists" -o Dir::State::status="$directory/status" \
		-o Dir::Cache="$directory/cache" -o Dir::Cache::archives="$directory/debs" \
		-o Dir::Etc::sourcelist="$directory/own.sources" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null "$@"
}
